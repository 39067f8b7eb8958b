"""Rules that change weights: of a readout (`RULES` lists those that learn at each step), and STDP inside a network."""

from reservoir.rules.base import Lesson as Lesson
from reservoir.rules.base import Rule as Rule
from reservoir.rules.eprop import EProp as EProp
from reservoir.rules.force import FORCE as FORCE
from reservoir.rules.reward_hebbian import RewardHebbian as RewardHebbian
from reservoir.rules.stdp import PAIRINGS as PAIRINGS
from reservoir.rules.stdp import PLASTIC as PLASTIC
from reservoir.rules.stdp import STDP as STDP
from reservoir.rules.stdp import DopamineSTDP as DopamineSTDP
from reservoir.rules.three_factor import GATES as GATES
from reservoir.rules.three_factor import ThreeFactorRule as ThreeFactorRule
from reservoir.rules.two_factor import TwoFactorRule as TwoFactorRule

RULES: dict[str, type[Rule]] = {
    "three_factor": ThreeFactorRule,
    "force": FORCE,
    "reward_hebbian": RewardHebbian,
    "eprop": EProp,
}
