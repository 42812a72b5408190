"""Chains of outliers on the sphere: HamOS's density and the rounds that its samplers share."""
