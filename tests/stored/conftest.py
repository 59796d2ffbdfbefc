from tests.fixtures import ran as ran
from tests.fixtures import run as run
