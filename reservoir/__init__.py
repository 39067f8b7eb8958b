"""Izhikevich reservoirs: neurons, networks, and one simulation on several backends."""

from reservoir.backends import BACKENDS as BACKENDS
from reservoir.backends import available_backends as available_backends
from reservoir.izhikevich import FORMS as FORMS
from reservoir.izhikevich import SCHEMES as SCHEMES
from reservoir.izhikevich import Izhikevich as Izhikevich
from reservoir.network import Population as Population
from reservoir.network import Reservoir as Reservoir
from reservoir.network import default_populations as default_populations
from reservoir.recording import Record as Record
from reservoir.recording import Recording as Recording
from reservoir.simulate import simulate as simulate
from reservoir.state import State as State
from reservoir.state import initial_state as initial_state
from reservoir.stimulus import Pulse as Pulse
from reservoir.stimulus import Stimulus as Stimulus
from reservoir.wiring import Synapse as Synapse
