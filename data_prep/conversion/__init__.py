"""What every conversion into records shares: reading, checking, splitting, writing."""
