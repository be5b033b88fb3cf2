r"""Train a network, let a method learn its bits, freeze and tune it, and export it to a file.

A run that was stopped, by whatever, goes on where its last checkpoint was when the same command is
given again, and ends with the same weights and file.

Examples:
    python examples/train.py --method=bsq --dataset=fashion_mnist --network=lenet5 --epochs=3 \
        --model_dir=runs/bsq --export=runs/bsq/m.tflite
    python examples/train.py --config_file=base.yaml --params_override=learning_rate=1e-3
    python examples/train.py --mode=eval --model_dir=runs/bsq

`docs/training.md` explains the phases, the files, and what can be set. All flags: --helpfull.
"""

from training import kinds, program
from training.flags import define_flags

if __name__ == "__main__":
    define_flags()
    program.start("train", kinds.keras_3)
