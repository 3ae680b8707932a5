"""py-amqp's and kombu's classes that the transport is built on; neither has annotations."""

from __future__ import annotations

from typing import Any

import amqp
from amqp import exceptions, method_framing, spec
from kombu.transport import pyamqp

BaseChannel: Any = pyamqp.Channel
BaseConnection: Any = pyamqp.Connection
BaseTransport: Any = pyamqp.Transport
AmqpMessage: Any = amqp.Message

Basic: Any = spec.Basic
ChannelMethods: Any = spec.Channel
stock_frame_writer: Any = method_framing.frame_writer

ChannelError: Any = exceptions.ChannelError
MessageNacked: Any = exceptions.MessageNacked
NotFound: Any = exceptions.NotFound
PreconditionFailed: Any = exceptions.PreconditionFailed
RecoverableChannelError: Any = exceptions.RecoverableChannelError
RecoverableConnectionError: Any = exceptions.RecoverableConnectionError
UnexpectedFrame: Any = exceptions.UnexpectedFrame
