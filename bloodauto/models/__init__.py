"""Networks: backbones, heads, input filters, unfreezing, and the device they run on."""
