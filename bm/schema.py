"""What a configuration holds, as plain dataclasses: every key, its type and its default.

Names and defaults are those of ``conf/``, where comments say what each key does. `bm.config` fills
them.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases (``wandb``)."""

    use_wandb: bool = False
    project: str = "brainmagick"
    group: str = "brainmagick-group"


@dataclass(frozen=True)
class OptimConfig:
    """Training (``optim``)."""

    name: str = "adam"
    lr: float = 3e-4
    beta2: float = 0.999
    epochs: int = 40
    batch_size: int = 32
    loss: str = "l1"
    use_weighting: bool = False
    max_batches: int | None = None
    svd: float = 0.0
    negatives: int | None = None
    negative_pool_size: int | None = None
    precision: str = "fp32"
    compile: bool = False
    micro_batch: int | None = None
    negatives_scope: str = "rank"
    batch_norm_scope: str = "rank"
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    max_gradient_norm: float | None = None
    ema: float | None = None
    on_bad_loss: str = "error"


@dataclass(frozen=True)
class ClipConfig:
    """Contrastive loss (``clip``)."""

    linear: int | None = None
    twin: bool = True
    pool: bool = False
    tmin: float | None = None
    tmax: float | None = None
    tmin_train: float | None = None
    tmax_train: float | None = None
    center: bool = False
    normalise: str = "y"
    temperature: bool = False
    duplicates: str = "keep"
    symmetric: bool = False
    objective: str = "softmax"


@dataclass(frozen=True)
class TestConfig:
    """Word monitor (``test``)."""

    wer_negatives: int = 10000
    wer_topx: int = 10
    wer_random: bool = False
    wer_recordings: int = 40
    wer_study: str | None = None


@dataclass(frozen=True)
class TestWindowConfig:
    """Windows of the test split (``dset.test``)."""

    tmin: float | None = None
    tmax: float | None = None
    condition: float | str | None = "word"


@dataclass(frozen=True)
class DsetConfig:
    """Recordings, splits, segments and features (``dset``)."""

    selections: list[str] = field(default_factory=lambda: ["gwilliams2022"])
    tmin: float = -0.5
    tmax: float = 2.5
    n_recordings: int = 1000
    n_subjects: int | None = None
    n_subjects_test: int | None = None
    shuffle_recordings_seed: int = -1
    skip_recordings: int = 0
    test_ratio: float = 0.2
    valid_ratio: float = 0.1
    remove_ratio: float = 0.0
    condition: float | str = 0.5
    apply_baseline: bool = True
    min_block_duration: float = 6
    force_uid_assignement: bool = False
    min_n_blocks_per_split: int = 1
    ignore_end_in_block: bool = False
    ignore_start_in_block: bool = False
    sample_rate: float = 120
    highpass: float = 0
    event_mask: bool = True
    split_wav_as_block: bool = True
    allow_empty_split: bool = False
    autoreject: bool = False
    test: TestWindowConfig = field(default_factory=TestWindowConfig)
    features: list[str] = field(default_factory=lambda: ["Wav2VecTransformer"])
    extra_test_features: list[str] = field(default_factory=list)
    features_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    bandpass: list[float] | None = None
    notch: float | None = None
    block_grouping: str = "recording_time"
    residency: str = "auto"
    storage: str = "fp32"
    on_bad_recording: str = "skip"
    control: str = "none"
    sensor_dimensions: int = 2


@dataclass(frozen=True)
class ScalerConfig:
    """Statistics of the scaler (``norm.scaler``)."""

    per_channel: bool = False
    n_samples_per_recording: int = 200
    n_samples_features: int = 8000


@dataclass(frozen=True)
class NormConfig:
    """Scaling (``norm``)."""

    scaler: ScalerConfig = field(default_factory=ScalerConfig)
    max_scale: float = 20.0
    clip: bool = True
    exclude_empty_features: bool = False


@dataclass(frozen=True)
class TaskConfig:
    """What is learned from what (``task``)."""

    type: str = "decode"
    meg_init: float = 0.3
    lowpass: float = 0
    offset_meg_ms: float = 0
    lowpass_gt: bool = True
    lowpass_gt_test: bool = False
    mask_loss: bool = False
    loss: str | None = None


@dataclass(frozen=True)
class HiddenConfig:
    """Channels of the encoder (``simpleconv.hidden``, ``convrnn.hidden``)."""

    meg: int | None = None
    features: int | None = None


@dataclass(frozen=True)
class SimpleConvConfig:
    """The brain encoder (``simpleconv``)."""

    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    concatenate: bool = False
    depth: int = 4
    linear_out: bool = False
    complex_out: bool = False
    kernel_size: int = 5
    dilation_growth: int = 2
    dilation_period: int | None = None
    skip: bool = False
    post_skip: bool = False
    growth: float = 1.0
    scale: float | None = None
    rewrite: bool = False
    groups: int = 1
    glu: int = 0
    glu_context: int = 0
    glu_glu: bool = True
    gelu: bool = False
    dual_path: int = 0
    conv_dropout: float = 0.0
    dropout_input: float = 0.0
    batch_norm: bool = False
    relu_leakiness: float = 0.0
    subject_dim: int = 64
    subject_layers: bool = False
    embedding_scale: float = 1.0
    subject_layers_dim: str = "input"
    subject_layers_id: bool = False
    n_fft: int | None = None
    fft_complex: bool = True
    merger: bool = False
    merger_pos_dim: int = 256
    merger_channels: int = 270
    merger_dropout: float = 0.2
    merger_penalty: float = 0.0
    merger_per_subject: bool = False
    dropout: float = 0.0
    dropout_rescale: bool = True
    initial_linear: int = 0
    initial_depth: int = 1
    initial_nonlin: bool = False
    subsample_meg_channels: int = 0
    unseen_subject_mean: bool = False
    transformer: int = 0
    transformer_heads: int = 8


@dataclass(frozen=True)
class ConvRNNConfig:
    """The encoder that goes both ways (``convrnn``)."""

    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    concatenate: bool = False
    depth: int = 2
    linear_out: bool = False
    complex_out: bool = False
    kernel_size: int = 4
    stride: int = 2
    growth: float = 1.0
    lstm: int = 4
    bidirectional_lstm: bool = False
    flip_lstm: bool = False
    attention: int = 0
    heads: int = 4
    conv_dropout: float = 0.0
    lstm_dropout: float = 0.0
    dropout_input: float = 0.0
    batch_norm: bool = False
    relu_leakiness: float = 0.0
    subject_dim: int = 64
    embedding_location: list[str] = field(default_factory=lambda: ["lstm"])
    embedding_scale: float = 1.0
    subject_layers: bool = False
    subject_layers_dim: str = "input"


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder by import path (``encoder``)."""

    target: str | None = None
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    tensorboard: bool = False
    num_prints: int = 5
    device: str = "cuda"
    num_workers: int = 2
    verbose: int = 0
    show: int = 0
    download_only: bool = False
    continue_sig: str | None = None
    continue_best: bool = True
    seed: int = 2036
    dummy: Any = None
    cache: str = "./cache"
    features_models: str = "./features_models"
    plugins: list[str] = field(default_factory=list)
    early_stop_patience: int = 10
    eval_every: int = 1
    eval_train_set: bool = False
    audit: str = "error"
    override_n_subjects_model: int | None = None
    model_name: str = "simpleconv"
    feature_model_name: str | None = None
    feature_model_params: dict[str, Any] = field(default_factory=dict)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    test: TestConfig = field(default_factory=TestConfig)
    dset: DsetConfig = field(default_factory=DsetConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    simpleconv: SimpleConvConfig = field(default_factory=SimpleConvConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    convrnn: ConvRNNConfig = field(default_factory=ConvRNNConfig)
    selections: dict[str, dict[str, Any]] = field(default_factory=dict)
    study_paths: dict[str, dict[str, Any]] = field(default_factory=dict)
    slurm: dict[str, Any] = field(default_factory=dict)
