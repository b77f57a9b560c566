import pytest

from fdjax.plots.style import arm_label, arm_styles


@pytest.mark.parametrize(
    ("arm", "label"),
    [
        ("fd", "FD"),
        ("fd_then_grpo", "FD→GRPO"),
        ("sft_references", "SFT references"),
        ("my arm", "my arm"),
        ("_", "_"),
    ],
)
def test_labels(arm, label):
    assert arm_label(arm) == label


def luminance(colour):
    # Relative luminance of WCAG 2.2.
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_seven_arms_differ_and_stand_out_from_the_page():
    styles = list(arm_styles([f"arm{place}" for place in range(7)]).values())
    for part in ("colour", "dark_colour", "marker"):
        assert len({getattr(style, part) for style in styles}) == 7
    dark_page = luminance("#1b1f25")
    for style in styles:
        # WCAG asks 3:1 of lines and of large text.
        assert 1.05 / (luminance(style.colour) + 0.05) >= 3.0
        assert (luminance(style.dark_colour) + 0.05) / (dark_page + 0.05) >= 3.0


def test_an_eighth_arm_gets_a_style():
    assert len(arm_styles([f"arm{place}" for place in range(8)])) == 8
