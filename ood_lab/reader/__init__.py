"""Reading the layouts that image sets are published in: which images there are, their classes, their pixels."""
