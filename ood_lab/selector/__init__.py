"""Which of a step's candidate images are taken as outliers, one rule a file."""
