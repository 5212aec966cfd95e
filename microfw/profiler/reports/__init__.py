"""What a session looks like: one file for each format, each a pure function from a session to text or a figure."""
