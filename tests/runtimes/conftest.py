import pytest
from runtimes.environments import RUNTIMES, NotInstallable, python_of


@pytest.fixture(scope="session", params=RUNTIMES, ids=lambda runtime: runtime.name)
def runtime(request):
    """Each runtime in turn; skipped where pip cannot install it."""
    try:
        python_of(request.param)
    except NotInstallable as error:
        pytest.skip(f"{request.param.name} cannot be installed here: {error}")
    return request.param
