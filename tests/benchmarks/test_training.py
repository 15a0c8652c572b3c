"""The training loop that the scripts share."""

import torch


def test_training(script):
    training, seen = script("training"), []

    def run():
        torch.manual_seed(0)
        head = torch.nn.Linear(3, 1).train()
        x = torch.randn(10, 3)
        y = x.sum(dim=1, keepdim=True)

        def loss(numbers):
            seen.append(numbers)
            return (head(x[numbers]) - y[numbers]).square().mean()

        return head, training.fit(head, 10, loss, epochs=40, batch=4, rate=0.1)

    (head, losses), (_, again) = run(), run()
    assert not head.training
    assert losses == again
    assert len(losses) == 40
    assert losses[-1] < 0.05 * losses[0]
    assert len(seen) == 2 * 40 * 2  # two of ten examples fill no batch
    assert all(len({*a, *b}) == 8 for a, b in zip(seen[::2], seen[1::2], strict=True))
