"""How large a change does one picture stand, and in which norm?

python examples/break_one_picture.py
"""

import torch
from torch import nn

import assay
from assay.views.breaking import AttackChoice, break_picture, find_smallest
from assay.views.looking import look
from assay.views.picture import alter, sample_at
from assay.views.subject import Subject

torch.manual_seed(0)
data = assay.load_dataset("digits")
model = assay.load_model("mlp", classes=10, image_shape=data.shape)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for _ in range(4):
    for batch in assay.load_dataset("digits", split="train").batches(64):
        loss = nn.functional.cross_entropy(model(batch.images / 255), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

subject = Subject(model.eval(), data)
picture = sample_at(data, 1)
for angle in (0, 15, 30):
    seen = look(subject, alter(picture, {"Rotate": angle}))
    print(f"rotated {angle:2}°: {seen.classes[seen.prediction]} ({max(seen.probabilities):.1%}), loss {seen.loss:.3f}")
for norm in ("linf", "l2"):
    print(f"smallest change in {norm}: {find_smallest(subject, picture, norm=norm).distance:.4f}")
print(
    "loss per step:",
    *(f"{loss:.2f}" for loss in break_picture(subject, picture, AttackChoice(steps=5, epsilon=0.1)).losses),
)
