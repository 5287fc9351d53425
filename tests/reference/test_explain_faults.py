"""Commands that `explain` used to misread: targets, values that a parser refuses, rules that follow from the target."""

from dataclasses import replace

import pytest

from specdec_ref.config import DraftBudget, SpecConfig
from specdec_ref.exporters import explain, export_command

START = "python -m sglang.launch_server --model-path meta-llama/Llama-3.1-8B-Instruct --speculative-algorithm EAGLE "


def refusals(command: str) -> str:
    found = explain(command)
    assert found.config is None
    return "; ".join(finding.text for finding in found.findings if finding.kind == "refused")


@pytest.mark.parametrize("value", ["five", "3.5", "-4", ""])
def test_values_that_the_parser_refuses_are_refused(value: str) -> None:
    assert "--speculative-num-steps" in refusals(f"{START} --speculative-num-steps={value} --speculative-eagle-topk 1")


@pytest.mark.parametrize("how", ["--speculative-use-rejection-sampling", "--speculative-use-block-verification"])
def test_the_engine_s_own_tree_refuses_rejection_sampling(how: str) -> None:
    command = f"{START} --speculative-draft-model-path d {how}"
    assert "needs a chain" in refusals(command)
    assert explain(f"{command} --speculative-num-steps 5 --speculative-eagle-topk 1").config is not None
    assert explain(command.replace("Llama", "Qwen").replace("llama", "qwen")).config is not None  # 3, 1, 4 there


def test_block_verification_on_a_cpu_is_refused() -> None:
    more = "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-use-block-verification --device cpu"
    assert "--device cpu" in refusals(f"{START} {more}")
    assert "only with cuda" in refusals(f"{START} {more.replace('cpu', 'xpu')}")
    ngram = "sglang serve m/x --speculative-algorithm NGRAM --device npu"
    assert "NGRAM does not run with --device npu" in refusals(ngram)


def test_ngram_ignores_rejection_sampling() -> None:
    command = "sglang serve m/x --speculative-algorithm NGRAM --speculative-use-rejection-sampling"
    found = explain(command)
    assert found.config is not None
    assert found.config.target == "m/x"
    assert any(finding.kind == "changed" and "ignores it" in finding.text for finding in found.findings)


@pytest.mark.parametrize(
    "command",
    [
        "docker run --gpus all vllm/vllm-openai --model m/x --speculative-config "
        "'{\"method\": \"ngram\", \"num_speculative_tokens\": 3}'",
        "vllm serve m/x --speculative-config '{\"method\": \"ngram\", \"num_speculative_tokens\": 3}'",
        "sglang serve m/x --speculative-algorithm NGRAM",
        "python -m sglang.launch_server --model m/x --speculative-algorithm NGRAM",
    ],
)  # fmt: skip
def test_the_target_is_found(command: str) -> None:
    config = explain(command).config
    assert config is not None
    assert config.target == "m/x"


def test_a_flag_with_too_many_dashes_is_unknown() -> None:
    assert "unknown" in refusals('vllm serve m/x ----speculative-config \'{"method": "ngram"}\'')


def test_adaptive_is_exported_or_refused() -> None:
    chain = SpecConfig("org/m", "eagle", "org/h", budget=DraftBudget(3), adaptive="optimal")
    assert "--speculative-adaptive" in export_command(chain, "sglang").command
    standalone = replace(chain, drafter="draft")  # the engine warns and drafts a fixed length
    for config, engine in ((chain, "vllm"), (replace(chain, drafter="trie"), "sglang"), (standalone, "sglang")):
        with pytest.raises(ValueError, match="adaptive 'optimal'"):
            export_command(config, engine)
    command = (
        "python -m sglang.launch_server --model m --speculative-algorithm STANDALONE --speculative-draft-model-path h"
    )
    found = explain(f"{command} --speculative-adaptive --speculative-num-steps 4 --speculative-eagle-topk 1")
    assert any("adaptive is for EAGLE and EAGLE3: the engine warns" in finding.text for finding in found.findings)
    assert found.config is not None
    assert found.config.budget.depth == 4
    with pytest.raises(ValueError, match="adaptive tiers"):
        export_command(replace(chain, budget=DraftBudget(4)), "sglang")


@pytest.mark.parametrize("command", ["vllm serve m/x --config f.yaml", "vllm serve --config=f.yaml"])
def test_a_file_of_settings_is_named(command: str) -> None:
    found = explain(command)
    assert found.config is None, "what drafts may be in the file"
    assert any("--config f.yaml: that file is not read here" in finding.text for finding in found.findings)
    drafting = explain(command + ' --speculative-config \'{"method": "ngram", "num_speculative_tokens": 3}\'').config
    assert drafting is not None
    assert drafting.drafter == "ngram"


def test_other_programs_of_llama_cpp_are_named() -> None:
    with pytest.raises(ValueError, match=r"of llama\.cpp's programs only llama-server is explained"):
        explain("./llama-cli -m x.gguf -p hello")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('{"method": "eagle3", "num_speculative_tokens": 3}', "needs model"),
        (
            '{"method": "ngram", "num_speculative_tokens": 3, "rejection_sample_method": "typical"}',
            "standard, synthetic",
        ),
        ('{"method": "ngram", "num_speculative_tokens": 3, "draft_sample_method": "top"}', "greedy, probabilistic"),
    ],
)
def test_what_vllm_s_validators_refuse(keys: str, said: str) -> None:
    assert said in refusals(f"vllm serve m/x --speculative-config '{keys}'")


def test_settings_that_an_engine_ignores_are_named() -> None:
    found = explain(
        'vllm serve m --speculative-config \'{"method": "eagle3", "model": "h", "num_speculative_tokens": 3, '
        '"prompt_lookup_max": 4}\''
    )
    assert any("prompt_lookup_max has no effect" in f.text for f in found.findings if f.kind == "changed")
    found = explain("sglang serve m/x --speculative-algorithm NGRAM --speculative-adaptive")
    assert any("adaptive is for EAGLE" in f.text for f in found.findings if f.kind == "changed")
