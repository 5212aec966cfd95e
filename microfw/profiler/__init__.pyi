# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.law import (
    Law as Law,
    LayerCost as LayerCost,
    NodeCount as NodeCount,
    PowerLaw as PowerLaw,
    StrategyResult as StrategyResult,
    Sweep as Sweep,
    law as law,
    sweep as sweep,
)
from microfw.profiler.alternation import alternate as alternate
from microfw.profiler.comparison import (
    Change as Change,
    Comparison as Comparison,
    compare as compare,
)
from microfw.profiler.cost_check import assert_cost as assert_cost
from microfw.profiler.model_summary import LayerSummary as LayerSummary, Summary as Summary, summary as summary
from microfw.profiler.profiler import Profiler as Profiler
from microfw.profiler.ratio import Ratio as Ratio
from microfw.profiler.reports.report import report as report
from microfw.profiler.search import FitProfile as FitProfile, fits_report as fits_report, load_fits as load_fits
from microfw.profiler.session import Epoch as Epoch, Layer as Layer, Row as Row, Session as Session, Trace as Trace

__all__: list[str]
