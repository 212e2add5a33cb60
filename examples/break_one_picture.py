"""How small is the smallest adversarial perturbation of one picture, and in which norm?

python examples/break_one_picture.py
"""

import torch
from torch import nn

import assay
from assay import views

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

context = views.ViewContext(model.eval(), data)
picture = views.sample_at(data, 1)
for angle in (0, 15, 30):
    prediction = views.predict_picture(context, views.apply_operations(picture, {"Rotate": angle}))
    name, probability = prediction.classes[prediction.predicted], max(prediction.probabilities)
    print(f"rotated {angle:2}°: {name} ({probability:.1%}), loss {prediction.loss:.3f}")
for norm in ("linf", "l2"):
    print(
        f"smallest perturbation in {norm}: {views.find_smallest_perturbation(context, picture, norm=norm).distance:.4f}"
    )
print(
    "loss per step:",
    *(
        f"{loss:.2f}"
        for loss in views.attack_picture(context, picture, views.AttackChoice(steps=5, epsilon=0.1)).losses
    ),
)
