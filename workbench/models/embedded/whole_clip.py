"""The codec run over a whole clip at once, with the weights and the numbers of diffusers' chunked pass.

`AutoencoderKLWan` walks a clip in chunks with a cache, thousands of small calls. Its convolutions are causal,
so the same result comes from one pass over all frames; that is what training and bulk encoding use.
Tensors are channels-last here, [B, T, H, W, C], and computation follows the dtype of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

ConvolutionForm = Literal["conv3d", "taps"]
"""How a 3×3×3 convolution is computed: directly, or as a 2D one over three stacked frames. Same numbers."""


class WholeClip:
    """Encode and decode whole clips with the weights of a residual `AutoencoderKLWan`.

    Args:
        codec: The codec; its parameters are used in place, so gradients reach them.
        form: How to compute the 3×3×3 convolutions.
    """

    def __init__(self, codec: AutoencoderKLWan, *, form: ConvolutionForm = "conv3d") -> None:
        if not codec.config.is_residual:
            raise ValueError("The whole-clip pass is written for the residual codec only.")
        self.codec = codec
        self.form = form

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        """Return the posterior's mean and log-variance.

        Args:
            clip: Pixels in [-1, 1], [B, F, H, W, 3] with F = 4k + 1.

        Returns:
            [B, k + 1, H / 8, W / 8, 2 · z], mean first.
        """
        encoder = self.codec.encoder
        x = self._conv(_patchify(clip), encoder.conv_in)
        for block in encoder.down_blocks:
            shortcut = _average_down(x, block.avg_shortcut)
            for resnet in block.resnets:
                x = self._residual(x, resnet)
            if block.downsampler is not None:
                x = self._downsample(x, block.downsampler)
            x = x + shortcut
        x = self._middle(x, encoder.mid_block)
        x = self._conv(F.silu(_norm(x, encoder.norm_out)), encoder.conv_out)
        return _pointwise(x, self.codec.quant_conv)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the decoded pixels, not clamped.

        Args:
            latents: [B, k + 1, H / 8, W / 8, z].

        Returns:
            [B, 4k + 1, H, W, 3], about [-1, 1].
        """
        decoder = self.codec.decoder
        x = self._conv(_pointwise(latents, self.codec.post_quant_conv), decoder.conv_in)
        x = self._middle(x, decoder.mid_block)
        for block in decoder.up_blocks:
            shortcut = None if block.avg_shortcut is None else _duplicate_up(x, block.avg_shortcut)
            for resnet in block.resnets:
                x = self._residual(x, resnet)
            if block.upsampler is not None:
                x = self._upsample(x, block.upsampler)
            if shortcut is not None:
                x = x + shortcut
        x = self._conv(F.silu(_norm(x, decoder.norm_out)), decoder.conv_out)
        return _unpatchify(x)

    def _conv(self, x: torch.Tensor, layer: Any) -> torch.Tensor:
        weight, bias = layer.weight.to(x.dtype), _bias(layer, x)
        past = F.pad(x, (0, 0, 0, 0, 0, 0, 2, 0))
        if self.form == "conv3d":
            out = F.conv3d(past.permute(0, 4, 1, 2, 3), weight, bias, padding=(0, 1, 1))
            return out.permute(0, 2, 3, 4, 1)
        frames = x.shape[1]
        stacked = torch.cat([past[:, tap : tap + frames] for tap in range(3)], dim=-1)
        kernel = weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        return _conv2d(stacked, kernel, bias, padding=1)

    def _residual(self, x: torch.Tensor, block: Any) -> torch.Tensor:
        skip = x if isinstance(block.conv_shortcut, torch.nn.Identity) else _pointwise(x, block.conv_shortcut)
        x = self._conv(F.silu(_norm(x, block.norm1)), block.conv1)
        return self._conv(F.silu(_norm(x, block.norm2)), block.conv2) + skip

    def _middle(self, x: torch.Tensor, block: Any) -> torch.Tensor:
        x = self._residual(x, block.resnets[0])
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            x = self._residual(_attend(x, attention), resnet)
        return x

    def _downsample(self, x: torch.Tensor, block: Any) -> torch.Tensor:
        layer = block.resample[1]
        x = _conv2d(F.pad(x, (0, 0, 0, 1, 0, 1)), layer.weight.to(x.dtype), _bias(layer, x), stride=2)
        if block.mode == "downsample2d" or x.shape[1] == 1:
            return x
        # The first frame passes untouched; then one frame for every two, each seeing the one before.
        kernel = block.time_conv.weight[..., 0, 0].permute(0, 2, 1).flatten(1).to(x.dtype)
        windows = torch.cat([x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2]], dim=-1)
        return torch.cat([x[:, :1], F.linear(windows, kernel, _bias(block.time_conv, x))], dim=1)

    def _upsample(self, x: torch.Tensor, block: Any) -> torch.Tensor:
        if block.mode == "upsample3d" and x.shape[1] > 1:
            # The first frame stays one frame and is hidden from the others; each other frame becomes two.
            later = x[:, 1:]
            past = F.pad(later, (0, 0, 0, 0, 0, 0, 2, 0))
            frames = later.shape[1]
            stacked = torch.cat([past[:, tap : tap + frames] for tap in range(3)], dim=-1)
            kernel = block.time_conv.weight[..., 0, 0].permute(0, 2, 1).flatten(1).to(x.dtype)
            pairs = F.linear(stacked, kernel, _bias(block.time_conv, x)).unflatten(-1, (2, -1))
            later = pairs.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
            x = torch.cat([x[:, :1], later], dim=1)
        batch, frames, height, width, channels = x.shape
        x = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2, -1)
        x = x.reshape(batch, frames, 2 * height, 2 * width, channels)
        layer = block.resample[1]
        return _conv2d(x, layer.weight.to(x.dtype), _bias(layer, x), padding=1)


def _bias(layer: Any, x: torch.Tensor) -> torch.Tensor:
    bias: torch.Tensor = layer.bias.to(x.dtype)
    return bias


def _conv2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, stride: int = 1, padding: int = 0
) -> torch.Tensor:
    batch = x.shape[0]
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    kernel = weight.contiguous(memory_format=torch.channels_last)
    out = F.conv2d(images, kernel, bias, stride=stride, padding=padding)
    return out.permute(0, 2, 3, 1).unflatten(0, (batch, -1))


def _pointwise(x: torch.Tensor, layer: Any) -> torch.Tensor:
    return F.linear(x, layer.weight.flatten(1).to(x.dtype), _bias(layer, x))


def _norm(x: torch.Tensor, layer: Any) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), layer.gamma.flatten().to(x.dtype), eps=1e-20)


def _attend(x: torch.Tensor, block: Any) -> torch.Tensor:
    batch, frames, height, width, channels = x.shape
    tokens = _norm(x, block.norm).reshape(batch * frames, 1, height * width, channels)
    query, key, value = _pointwise(tokens, block.to_qkv).chunk(3, dim=-1)
    out = _pointwise(F.scaled_dot_product_attention(query, key, value), block.proj)
    return x + out.reshape(x.shape)


def _average_down(x: torch.Tensor, shortcut: Any) -> torch.Tensor:
    if shortcut.factor == 1 and shortcut.group_size == 1:
        return x
    time, space = shortcut.factor_t, shortcut.factor_s
    x = F.pad(x, (0, 0, 0, 0, 0, 0, (time - x.shape[1] % time) % time, 0))
    batch, frames, height, width, channels = x.shape
    x = x.view(batch, frames // time, time, height // space, space, width // space, space, channels)
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(4)
    return x.unflatten(-1, (shortcut.out_channels, shortcut.group_size)).mean(-1)


def _duplicate_up(x: torch.Tensor, shortcut: Any) -> torch.Tensor:
    time, space = shortcut.factor_t, shortcut.factor_s
    x = x.repeat_interleave(shortcut.repeats, dim=-1)
    x = x.unflatten(-1, (shortcut.out_channels, time, space, space)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, time - 1 :]


def _patchify(clip: torch.Tensor) -> torch.Tensor:
    batch, frames, height, width, colours = clip.shape
    x = clip.reshape(batch, frames, height // 2, 2, width // 2, 2, colours)
    return x.permute(0, 1, 2, 4, 6, 5, 3).flatten(4)


def _unpatchify(x: torch.Tensor) -> torch.Tensor:
    x = x.unflatten(-1, (3, 2, 2)).permute(0, 1, 2, 6, 3, 5, 4)
    return x.flatten(4, 5).flatten(2, 3)
