"""Every claim, in the order in which they are listed and reported.

One import and one line in the tuple a claim.
"""

from __future__ import annotations

from assay.claims.attack_collapse import ATTACK_COLLAPSE
from assay.claims.attack_random import ATTACK_RANDOM
from assay.claims.attack_steps import ATTACK_STEPS
from assay.claims.attention_path import ATTENTION_PATH
from assay.claims.augment_helps import AUGMENT_HELPS
from assay.claims.bottleneck import BOTTLENECK
from assay.claims.claim import Claim
from assay.claims.decay_bias import DECAY_BIAS
from assay.claims.factor_gauge import FACTOR_GAUGE
from assay.claims.factor_nonconvex import FACTOR_NONCONVEX
from assay.claims.factor_svd import FACTOR_SVD
from assay.claims.group_by_name import GROUP_BY_NAME
from assay.claims.lstm_forget import LSTM_FORGET
from assay.claims.modes_differ import MODES_DIFFER
from assay.claims.norm_order import NORM_ORDER
from assay.claims.residual_depth import RESIDUAL_DEPTH
from assay.claims.residual_shape import RESIDUAL_SHAPE
from assay.claims.rnn_bounded import RNN_BOUNDED
from assay.claims.rnn_clip import RNN_CLIP
from assay.claims.rnn_decay import RNN_DECAY
from assay.claims.rnn_norm import RNN_NORM

CLAIMS: tuple[Claim, ...] = (
    RESIDUAL_DEPTH,
    RESIDUAL_SHAPE,
    NORM_ORDER,
    BOTTLENECK,
    MODES_DIFFER,
    DECAY_BIAS,
    GROUP_BY_NAME,
    AUGMENT_HELPS,
    FACTOR_NONCONVEX,
    FACTOR_SVD,
    FACTOR_GAUGE,
    ATTACK_STEPS,
    ATTACK_COLLAPSE,
    ATTACK_RANDOM,
    RNN_NORM,
    RNN_BOUNDED,
    RNN_CLIP,
    RNN_DECAY,
    LSTM_FORGET,
    ATTENTION_PATH,
)
