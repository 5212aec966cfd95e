"""The table of ops: one row for each, in a file for each family. To add an op, add its row to its family's file."""
