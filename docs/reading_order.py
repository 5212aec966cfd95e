"""The order in which the gallery shows its pages: tutorials as they build on each other, examples by number."""

TUTORIALS = ("train_and_read_the_backward_cost", "why_n_plus_p", "read_a_profile", "cost_in_ci")


class ReadingOrder:
    """A key to sort the files of a folder by."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, filename):
        """Return the place of a tutorial; of anything else its name."""
        name = filename.removesuffix(".py")
        return (TUTORIALS.index(name), name) if name in TUTORIALS else (len(TUTORIALS), name)

    def __repr__(self):
        return type(self).__name__
