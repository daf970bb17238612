"""HTTP of the records service, one file per subject."""
