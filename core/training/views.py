"""Two random views of each image: drawn on the CPU from seed and step, made on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from core.errors import InvalidSpec
from core.spec import Frozen

VIEWS = 2
SMALL_SIDE = 64  # below it, blurring leaves too little to tell images apart (Chen et al. 2020, appendix B.9)
# From RGB to brightness and two axes of colour (YIQ): saturation scales the plane of these axes, hue turns it.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
RGB = torch.linalg.inv(YIQ)


class Augmentation(Frozen):
    """How the two views of an image differ: in all that a feature should not depend on."""

    crop_scale: float | None = Field(
        None, gt=0, le=1, description="Least part of an image's area that a view shows; none: 0.3, grey images 0.4."
    )
    crop_ratio: float = Field(4 / 3, ge=1, le=4, description="How far a view's sides are stretched against each other.")
    horizontal_flip: float | None = Field(
        None, ge=0, le=1, description="Probability of mirroring; none: 0.5, grey images 0 (it ruins characters)."
    )
    rotation: float | None = Field(
        None, ge=0, le=180, description="Degrees by which a view is turned at most; none: 0, grey images 15."
    )
    jitter_probability: float | None = Field(
        None, gt=0, le=1, description="Probability of changing colours, by the four strengths that follow; none: 0.8."
    )
    brightness: float = Field(0.4, ge=0, le=1, description="Strength of the change of brightness.")
    contrast: float = Field(0.4, ge=0, le=1, description="Strength of the change of contrast.")
    saturation: float | None = Field(
        None, ge=0, le=1, description="Strength of the change of saturation; none: 0.4, grey images 0."
    )
    hue: float | None = Field(
        None, ge=0, le=0.5, description="Part of the colour circle that hues are turned by; none: 0.1, grey images 0."
    )
    grayscale: float | None = Field(
        None, ge=0, le=1, description="Probability of taking all colour away; none: 0.2, grey images 0."
    )
    blur: float | None = Field(
        None, ge=0, le=1, description="Probability of blurring; none: 0.5, images below 64 pixels 0."
    )
    blur_sigma: float | None = Field(
        None, gt=0.1, le=20, description="Largest width of the blur in pixels (the least is 0.1); none: 2."
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.blur == 0 and self.blur_sigma is not None:
            raise ValueError("blur_sigma would have no effect: blur is 0")
        is_unchanged = self.brightness == self.contrast == self.saturation == self.hue == 0
        if is_unchanged and self.jitter_probability is not None:
            raise ValueError("jitter_probability would have no effect: all four strengths are 0")
        chances = (self.horizontal_flip, self.rotation, self.grayscale, self.blur)
        if is_unchanged and self.crop_scale == 1 and self.crop_ratio == 1 and not any(c is None or c for c in chances):
            raise ValueError("the two views of an image would be the same: let the augmentation change something")
        return self

    def for_images(self, shape: Sequence[int]) -> Augmentation:
        """All settings for images of this shape, (channels, height, width); raises InvalidSpec where one cannot act."""
        is_grey, is_small = shape[0] == 1, min(shape[1:]) < SMALL_SIDE
        self._check_colors(is_grey)
        if is_small and self.blur is None and self.blur_sigma is not None:
            raise InvalidSpec(
                f"augmentation.blur_sigma would have no effect: images of {shape[1]}x{shape[2]} pixels are not blurred "
                "unless augmentation.blur says how often",
                param="augmentation",
            )
        defaults = {
            "crop_scale": 0.4 if is_grey else 0.3,
            "horizontal_flip": 0.0 if is_grey else 0.5,
            "rotation": 15.0 if is_grey else 0.0,
            "jitter_probability": 0.8,
            "saturation": 0.0 if is_grey else 0.4,
            "hue": 0.0 if is_grey else 0.1,
            "grayscale": 0.0 if is_grey else 0.2,
            "blur": 0.0 if is_small else 0.5,
            "blur_sigma": 2.0,
        }
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing)

    def _check_colors(self, is_grey: bool) -> None:
        for name in ("saturation", "hue", "grayscale"):
            if is_grey and getattr(self, name):
                raise InvalidSpec(
                    f"augmentation.{name} would have no effect: the images are grey; leave it out", param="augmentation"
                )


class Draws(NamedTuple):
    """What was drawn for the views of n images."""

    places: torch.Tensor  # [n, 2, 2, 3]: takes a view's coordinates, from -1 to 1, to those of the image
    brightness: torch.Tensor  # [n, 2] factors
    contrast: torch.Tensor  # [n, 2] factors
    colors: torch.Tensor | None  # [n, 2, 3, 3] matrices for RGB; None for grey images
    sigmas: torch.Tensor | None  # [n, 2] widths of the blur in pixels, 0 where there is none; None: none anywhere

    def to_views(self, pixels: torch.Tensor) -> torch.Tensor:
        """The views [n, 2, channels, height, width], in [0, 1], of `pixels` [n, channels, height, width] in bytes."""
        x = cropped(pixels.float().div_(255).repeat_interleave(VIEWS, 0), self.places.flatten(0, 1))
        colors = None if self.colors is None else self.colors.flatten(0, 1)
        x = recolored(x, self.brightness.flatten(), self.contrast.flatten(), colors)
        if self.sigmas is not None:
            x = blurred(x, self.sigmas.flatten())
        return x.view(len(pixels), VIEWS, *x.shape[1:])


class Dice(NamedTuple):
    """Draws a number for each view of a batch, [n, 2]."""

    views: tuple[int, int]
    generator: torch.Generator

    def uniform(self, low: float, high: float) -> torch.Tensor:
        """Evenly between `low` and `high`."""
        return torch.rand(self.views, generator=self.generator) * (high - low) + low

    def happens(self, probability: float | None) -> torch.Tensor:
        """True with this probability."""
        return torch.rand(self.views, generator=self.generator) < (probability or 0.0)


def draw(shape: Sequence[int], settings: Augmentation, *, seed: int, step: int) -> Draws:
    """What a step does to images of `shape`, (n, channels, height, width); a function of seed and step alone.

    `settings` are complete, see `Augmentation.for_images`. Drawn on the CPU, so that every device sees the same views.
    """
    dice = Dice((shape[0], VIEWS), torch.Generator().manual_seed((seed * 1_000_003 + step + 1) * 7919))
    places = _draw_places(shape[3] / shape[2], settings, dice)
    is_jittered = dice.happens(settings.jitter_probability)
    strengths = (settings.brightness, settings.contrast, settings.saturation or 0.0)
    factors = [torch.where(is_jittered, dice.uniform(1 - each, 1 + each), 1.0) for each in strengths]
    turn = torch.where(is_jittered, dice.uniform(-1, 1) * (settings.hue or 0.0) * 2 * math.pi, 0.0)
    chroma = torch.where(dice.happens(settings.grayscale), 0.0, factors[2])
    colors = _color_matrices(chroma, turn) if shape[1] == 3 else None
    sigmas = torch.where(dice.happens(settings.blur), dice.uniform(0.1, settings.blur_sigma or 0.1), 0.0)
    return Draws(places, factors[0], factors[1], colors, sigmas if settings.blur else None)


def _draw_places(aspect: float, settings: Augmentation, dice: Dice) -> torch.Tensor:
    """Random resized crops, mirrored and turned: affine matrices [n, 2, 2, 3]. `aspect`: width over height."""
    area = dice.uniform(settings.crop_scale or 1.0, 1.0)
    stretch = (dice.uniform(-1, 1) * math.log(settings.crop_ratio)).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    x, y = dice.uniform(-1, 1) * (1 - width), dice.uniform(-1, 1) * (1 - height)
    width = torch.where(dice.happens(settings.horizontal_flip), -width, width)
    angle = dice.uniform(-1, 1) * math.radians(settings.rotation or 0.0)
    # a turn keeps angles between pixels, while coordinates go from -1 to 1 along both sides
    to_x = torch.stack([width * angle.cos(), -height * angle.sin() / aspect, x], -1)
    to_y = torch.stack([width * angle.sin() * aspect, height * angle.cos(), y], -1)
    return torch.stack([to_x, to_y], -2)


def _color_matrices(chroma: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """RGB to RGB [..., 3, 3]: colours scaled by `chroma` (0: grey) and turned by `turn` radians; brightness stays."""
    cosine, sine = chroma * turn.cos(), chroma * turn.sin()
    zero, one = torch.zeros_like(chroma), torch.ones_like(chroma)
    rows = ([one, zero, zero], [zero, cosine, -sine], [zero, sine, cosine])
    matrices: torch.Tensor = RGB @ torch.stack([torch.stack(row, -1) for row in rows], -2) @ YIQ
    return matrices


def cropped(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What `x` [views, channels, height, width] shows at `places` [views, 2, 3], at its own size, bilinear."""
    grid = functional.affine_grid(places, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def recolored(
    x: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, colors: torch.Tensor | None
) -> torch.Tensor:
    """`x` [views, channels, height, width] times brightness, away from its mean grey by contrast, through `colors`.

    Kept in [0, 1] once, at the end: all of it is one affine map a view.
    """
    flat = x.flatten(2)
    luma = flat if colors is None else YIQ[:1].to(x.device) @ flat
    offset = (1 - contrast) * brightness * luma.mean((1, 2))
    gain = (brightness * contrast)[:, None, None]
    flat = flat * gain if colors is None else torch.baddbmm(offset[:, None, None], colors * gain, flat)
    flat = flat + offset[:, None, None] if colors is None else flat
    return flat.clamp_(0, 1).view_as(x)


def blurred(x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """`x` [views, channels, height, width] under Gaussians of these widths, cut off at a twentieth of the side."""
    reach = max(1, min(x.shape[2:]) // 20)
    steps = torch.arange(-reach, reach + 1, device=x.device)
    kernel = (-0.5 * (steps / sigmas.clamp(min=1e-3)[:, None]).square()).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)  # [views * channels, taps]
    padded = functional.pad(x, (reach, reach, reach, reach), mode="reflect").flatten(0, 1)[None]
    down = functional.conv2d(padded, kernel[:, None, :, None], groups=len(kernel))
    return functional.conv2d(down, kernel[:, None, None, :], groups=len(kernel))[0].view_as(x)
