"""Tokens are drawn as the formulas and transformers say."""

from __future__ import annotations

import pytest
import torch
import transformers

from core.serving.sampling import Sampler, Sampling, nucleus, told

LOGITS = torch.tensor([2.0, 1.0, -1.0, 0.5, -3.0, float("-inf")])


def sampler(
    index: int = 0, *, prompt: tuple[int, ...] = (), repetition_penalty: float = 1.0, **settings: float
) -> Sampler:
    return Sampler(Sampling(**settings), index=index, prompt=prompt, repetition_penalty=repetition_penalty)  # type: ignore[arg-type]


def test_at_temperature_zero_the_likeliest_comes() -> None:
    assert [sampler(temperature=0).draw(LOGITS).token for _ in range(3)] == [0, 0, 0]


def test_at_the_least_of_temperatures_the_likeliest_comes() -> None:
    assert sampler(temperature=5e-324).draw(LOGITS).token == 0


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    one = sampler(seed=3, temperature=2.0)
    drawn = torch.tensor([one.draw(LOGITS).token for _ in range(4000)])
    shares = drawn.bincount(minlength=6) / len(drawn)
    torch.testing.assert_close(shares, (LOGITS / 2).softmax(0), atol=0.03, rtol=0)


def test_a_seed_repeats_and_each_answer_has_its_own() -> None:
    def tokens(index: int) -> list[int]:
        one = sampler(index, seed=7, temperature=2.0)
        return [one.draw(LOGITS).token for _ in range(20)]

    assert tokens(0) == tokens(0) != tokens(1)


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.8, 0.99])
def test_the_nucleus_is_that_of_transformers(top_p: float) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    warped = transformers.TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), logits[None])[0]
    kept = nucleus(logits.softmax(0), top_p)
    assert torch.equal(kept > 0, warped > float("-inf"))


def test_penalties_count_what_was_written() -> None:
    one = sampler(temperature=0, presence_penalty=0.4, frequency_penalty=0.35)
    # 2.0, then 2 - 0.4 - 0.35 = 1.25, then 2 - 0.4 - 0.7 = 0.9 < 1.0, then 1 - 0.75 = 0.25 < 0.9
    assert [one.draw(LOGITS).token for _ in range(4)] == [0, 0, 1, 0]


def test_a_models_own_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.tensor([1.0, 0.95, -0.2, 0.3])
    processed = transformers.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[0, 2]]), logits[None])[0]
    one = sampler(temperature=0, prompt=(0, 2), repetition_penalty=1.3)
    assert one.draw(logits).token == int(processed.argmax()) == 1


def test_a_bias_is_added_and_probabilities_are_the_models_own() -> None:
    drawn = sampler(temperature=0, logit_bias={2: 100.0}, logprobs=2).draw(LOGITS)  # type: ignore[arg-type]
    assert drawn.token == 2
    logprobs = LOGITS.log_softmax(0).tolist()
    assert drawn.logprob == pytest.approx(logprobs[2])
    assert [token for token, _ in drawn.likeliest] == [0, 1]
    assert told(float("-inf")) == -9999.0
