"""The second way in: devices deliver by HTTPS when MQTT brings them no receipts."""
