"""What the engine reports while a model trains: observed, timed, and added up."""
