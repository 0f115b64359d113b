"""The three ways to the centre and back: MQTT, HTTPS and a stick; window, receipts and keys."""
