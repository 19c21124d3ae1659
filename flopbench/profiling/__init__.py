"""Where the time of a pair goes, what the device would allow, and what is missing between the two."""
