"""Reports of a session: one file for each format, each a pure function from a session to text or a figure."""
