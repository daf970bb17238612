"""The records service: what was predicted, for whom and by what; kept, found again, corrected, counted, removed."""
