from benchmarks.training import profile


def test_operators_that_differ_most_come_first():
    base = {"Conv2D": (10.0, 2.0), "Relu": (1.0, 1.0), "Gone": (3.0, 1.0)}
    times = {"Conv2D": (10.5, 2.0), "Relu": (1.0, 1.0), "round_fusion": (2.0, 4.0)}
    _, *lines = profile.compared(base, times, rows=3).splitlines()
    assert [line.split()[-1] for line in lines] == ["Gone", "round_fusion", "Conv2D"]
    assert [float(line.split()[0]) for line in lines] == [-3.0, 2.0, 0.5]


def test_names_of_operators():
    assert profile.operator("net/block:1/conv:_MklNativeConv2D") == "_MklNativeConv2D"
    assert profile.operator("ExecutorState::Process") == "ExecutorState::Process"
    assert profile.operator("round_fusion") == "round_fusion"
