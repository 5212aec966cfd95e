"""Sphinx configuration. ``sphinx-build -W -b html docs docs/_build/html`` builds the site, without a network."""

import inspect
import os
import sys
import warnings
from pathlib import Path

here = Path(__file__).parent
sys.path[:0] = [str(here.parent), str(here)]
os.environ.setdefault("MPLBACKEND", "Agg")
# One thread: in small models several threads mostly wait for each other.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import doctests

import microfw as mf
import microfw.ops.whole  # registers every op, for the table of ops
from microfw import nn, optim
from microfw.autograd.registry import OPS
from microfw.visualization import Drawing

project = "microfw"
author = "The microfw maintainers"
project_copyright = author
version = release = mf.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "law_page",
]
templates_path = ["_templates"]
exclude_patterns = [
    "_build",
    "_templates",
    "tutorials",
    "**/GALLERY_HEADER.rst",
    "generated/ops_*.md",
    "generated/nn_*.rst",
    "generated/optim_*.rst",
]
nitpicky = False
show_warning_types = True

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# The pages of the reference, and the lists that pages include: autosummary does not follow includes.
autosummary_generate = [f"api/{page.name}" for page in here.glob("api/*.md")]
autosummary_generate += ["generated/nn_layers.rst", "generated/optim_optimizers.rst"]
# On some systems two file names that differ only in case are the same file.
autosummary_filename_map = {"microfw.tensor": "microfw.tensor-function"}
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "code"

warnings.filterwarnings("ignore", message=".*FigureCanvasAgg is non-interactive.*")
sphinx_gallery_conf = {
    "examples_dirs": ["tutorials", "../examples"],
    "gallery_dirs": ["gallery/tutorials", "gallery/examples"],
    "filename_pattern": r"[\\/][a-z]\w*\.py$",
    "within_subsection_order": "reading_order.ReadingOrder",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 60,
}

Drawing._repr_html_ = lambda drawing: drawing.html  # the gallery shows no image/svg+xml

html_theme = "furo"
html_title = f"microfw {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False


def check_pages(app):
    """Run the examples of the Markdown pages and compare their output."""
    doctests.check(*sorted(here.glob("*.md")), *sorted(here.glob("*/*.md")))


def list_ops():
    """Write a table of ops for each family, from the registry."""
    families = {}
    for declared in OPS.values():
        family = declared.value.__module__.removeprefix("microfw.ops.")
        families.setdefault(family, ["| op | what it computes | gradient |", "|---|---|---|"]).append(op_row(declared))
    (here / "generated").mkdir(exist_ok=True)
    text = "\n\n".join(
        f"## `microfw.ops.{family}`\n\n" + "\n".join(lines) for family, lines in families.items() if len(lines) > 2
    )
    (here / "generated" / "ops_table.md").write_text(text + "\n", encoding="utf-8")


def list_layers():
    """Write the reference of the modules, layers, activations and losses that `nn` exports."""
    groups = {"Modules": ["Module", "Parameter"], "Layers": [], "Activations": [], "Losses": []}
    for name in nn.__all__:
        value = getattr(nn, name)
        if not inspect.isclass(value) or name in groups["Modules"]:
            continue
        room = value.__module__.removeprefix("microfw.nn.").partition(".")[0]
        group = {"activations": "Activations", "losses": "Losses"}.get(room, "Layers")
        groups["Modules" if name in CONTAINERS else group].append(name)
    write_reference("nn", "layers", groups)


def list_optimizers():
    """Write the reference of the optimizers that `optim` exports, their base last."""
    values = {name: getattr(optim, name) for name in optim.__all__}
    names = [n for n, kind in values.items() if inspect.isclass(kind) and issubclass(kind, optim.Optimizer)]
    names.sort(key=lambda name: name == "Optimizer")
    write_reference("optim", "optimizers", {"Optimizers": names})


def write_reference(room, topic, groups):
    """Write a part of the reference: for each group its title, and the names with links to their pages."""
    text = f".. currentmodule:: microfw.{room}\n"
    for title, names in groups.items():
        text += f"\n{title}\n{'-' * len(title)}\n\n.. autosummary::\n   :toctree: ../generated\n\n"
        text += "".join(f"   {name}\n" for name in names)
    (here / "generated").mkdir(exist_ok=True)
    (here / "generated" / f"{room}_{topic}.rst").write_text(text, encoding="utf-8")


CONTAINERS = ("Sequential", "Residual", "Identity", "Lambda")


def op_row(declared):
    """Return the row of an op: its call, the first line of its docstring, and the inputs that have a derivative."""
    signature = inspect.signature(declared.value)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    call = f"{declared.name}{signature.replace(parameters=plain, return_annotation=signature.empty)}"
    says = (inspect.getdoc(declared.value) or "").partition("\n")[0].replace("``", "`").replace("|", "\\|")
    if declared.variadic:
        by = "yes"
    else:
        by = ", ".join(f"`{declared.inputs[p.index]}`" for p in declared.partials if p) or "none"
    return f"| `{call}` | {says} | {by} |"


def skip_requests(app, what, name, obj, skip, options):
    """Skip the methods of metadata routing that scikit-learn adds to estimators: they link to its own pages."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    """Write the generated pages, and check the others before the build."""
    list_ops()
    list_layers()
    list_optimizers()
    app.connect("builder-inited", check_pages)
    app.connect("autodoc-skip-member", skip_requests)
