"""The client for asyncio."""

from accord_client.aio.channel import open_channel

__all__ = ["open_channel"]
