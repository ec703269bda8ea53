"""Others' models, a thousandth of their size and untrained, in the folders that `from_pretrained` reads."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

NUM_CODEBOOKS, CODEBOOK_SIZE = 4, 16
_SPECIAL = ("<pad>", "</s>", "<unk>")
_HOP = (8, 5, 4, 4)  # 640 samples: 50 frames a second at 32 kHz, as MusicGen's own


def create_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of characters that ends texts with </s>, as T5's does."""
    letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.'-"
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def create_musicgen(audio_channels: int = 1) -> MusicgenForConditionalGeneration:
    """Return a MusicGen with random weights: T5, EnCodec at 32 kHz and 50 Hz, a decoder of one layer."""
    text = T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    audio = EncodecConfig(
        sampling_rate=32_000,
        upsampling_ratios=list(_HOP),
        num_filters=4,
        hidden_size=8,
        num_lstm_layers=1,
        codebook_size=CODEBOOK_SIZE,
        codebook_dim=8,
        target_bandwidths=[0.2 * NUM_CODEBOOKS],  # kbit/s: 4 bits a codebook, 50 times a second
        normalize=False,
        use_causal_conv=False,
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=CODEBOOK_SIZE,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_codebooks=NUM_CODEBOOKS * audio_channels,
        audio_channels=audio_channels,
        pad_token_id=CODEBOOK_SIZE,
        bos_token_id=CODEBOOK_SIZE,
        decoder_start_token_id=CODEBOOK_SIZE,
    )
    config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=audio.to_dict(), decoder=decoder.to_dict())
    model = MusicgenForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()  # zero until trained: every code would be the same
    return model


def save_musicgen(folder: Path, audio_channels: int = 1) -> Path:
    """Write a MusicGen and its tokenizer as a model's directory."""
    create_musicgen(audio_channels).save_pretrained(folder)
    create_tokenizer().save_pretrained(folder)
    return folder


def create_whisper() -> WhisperForConditionalGeneration:
    """Return a Whisper with random weights for 80 bands."""
    config = WhisperConfig(
        vocab_size=100,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return WhisperForConditionalGeneration(config)
