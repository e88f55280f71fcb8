"""Pictures that are worth a look: ranked, written for LabelMe, and merged when they come back."""
