"""Outlier sources in feature space, one file each: `sample(bank, generator)` gives outliers."""
