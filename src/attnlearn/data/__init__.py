"""Where information comes from: counted black boxes, real layers, examples."""

from attnlearn.data import oracles as oracles
from attnlearn.data.examples import Examples as Examples
from attnlearn.data.pretrained import pretrained as pretrained
from attnlearn.data.queries import QueryOracle as QueryOracle
from attnlearn.data.single_location import SingleLocationTask as SingleLocationTask
