# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.optim import schedules as schedules
from microfw.optim.adagrad import Adagrad as Adagrad
from microfw.optim.adam import Adam as Adam
from microfw.optim.adamw import AdamW as AdamW
from microfw.optim.averaging import Average as Average
from microfw.optim.clipping import clip_grad_norm as clip_grad_norm, clip_grad_value as clip_grad_value
from microfw.optim.lbfgs import LBFGS as LBFGS
from microfw.optim.optimizer import Optimizer as Optimizer
from microfw.optim.parallel import DataParallel as DataParallel, RankError as RankError
from microfw.optim.rmsprop import RMSprop as RMSprop
from microfw.optim.sgd import SGD as SGD

__all__: list[str]
