"""The order of pages in the gallery: tutorials by difficulty, examples by number."""

TUTORIALS = ("train_and_read_the_backward_cost", "read_a_profile", "law_of_your_model", "cost_in_ci")


class ReadingOrder:
    """Sort key for the files of a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, filename):
        """Return the position of a tutorial; for other files, the name."""
        name = filename.removesuffix(".py")
        return (TUTORIALS.index(name), name) if name in TUTORIALS else (len(TUTORIALS), name)

    def __repr__(self):
        return type(self).__name__
