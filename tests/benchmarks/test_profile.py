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


def test_instructions_of_jax_are_told_by_place_and_kind(tmp_path):
    hlo = tmp_path / "module_0034.jit_train_step.cpu_after_optimizations.txt"
    lines = [
        ("fusion.3 = f32[8]{0} fusion(%p)", "jvp(conv1)/input_quantizer/mul"),
        (
            "dot_fusion.12.1 = f32[] fusion(%q)",
            "transpose(jvp(conv1))/input_quantizer/cond/branch_0_fun/jit(_where)/select_n",
        ),
        ("copy.7 = f32[] copy(%r)", "sgd/sub"),
    ]
    text = [
        f'  %{made}, metadata={{op_name="jit(train_step)/{path}" stack_frame_id=8}}'
        for made, path in lines
    ]
    hlo.write_text("\n".join([*text, "  %copy.8 = f32[] copy(%r)"]))
    places = profile.compiled_places(tmp_path)
    events = ["fusion.3", "dot_fusion.12.1", "copy.7", "copy.8", "$trainer.py:749 train"]
    assert [profile.instruction(event, places) for event in events] == [
        "forward input_quantizer/fusion",
        "backward input_quantizer/dot_fusion",
        "after sgd/copy",
        "copy",
        None,
    ]
