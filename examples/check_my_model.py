"""Put a network of your own to the test, and write the page.

python examples/check_my_model.py
"""

from pathlib import Path

import torch
from torch import nn

import assay
from assay.check import BUDGETS

torch.manual_seed(0)
model = nn.Sequential(  # yours; images (N, 1, 32, 32) in [0, 1] to logits (N, 10)
    nn.Conv2d(1, 8, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 10)
)
train, test = assay.load_dataset("digits", split="train"), assay.load_dataset("digits")
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(8):
    for batch in train.batches(128):
        loss = nn.functional.cross_entropy(model(batch.images / 255), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

checkup = assay.run_check(model.eval(), test, name="my network", budget=BUDGETS["quick"], limit=16)
Path("report.html").write_text(assay.render_page(checkup), encoding="utf-8")
for verdict in checkup.verdicts:
    if verdict.status != "not run":
        print(f"{verdict.status:5}  {verdict.rule}  {verdict.claim}")
