from pathlib import Path

from stages.common.models import load_model, load_tokenizer
from stages.quantize import Quantize, generated_rows


def test_a_model_writes_its_own_calibration_texts(toy_base: Path) -> None:
    """After an empty question, as many and as long as asked for, without a training row."""
    params = Quantize(
        scheme="w4a16", calibration="generated", group_size=32, calibration_rows=5, calibration_length_tokens=16,
        dampening=0.05, seed=1,
    )  # fmt: skip
    tokenizer = load_tokenizer(toy_base)
    texts = generated_rows(load_model(toy_base, "float32", "cpu"), tokenizer, params)
    assert len(texts) == 5
    for text in texts:
        assert tokenizer.decode(text).startswith("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n")
