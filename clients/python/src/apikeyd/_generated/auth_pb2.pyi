import datetime

from . import key_pb2 as _key_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_LOCKED_OUT: _ClassVar[Decision]
    DECISION_MALFORMED: _ClassVar[Decision]
    DECISION_NOT_FOUND: _ClassVar[Decision]
    DECISION_REVOKED: _ClassVar[Decision]
    DECISION_DISABLED: _ClassVar[Decision]
    DECISION_EXPIRED: _ClassVar[Decision]
    DECISION_ROTATED: _ClassVar[Decision]
    DECISION_IP_NOT_ALLOWED: _ClassVar[Decision]
    DECISION_INSUFFICIENT_SCOPE: _ClassVar[Decision]
    DECISION_RATE_LIMITED: _ClassVar[Decision]
    DECISION_VALID: _ClassVar[Decision]

class KeyChange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_CHANGE_UNSPECIFIED: _ClassVar[KeyChange]
    KEY_CHANGE_CREATED: _ClassVar[KeyChange]
    KEY_CHANGE_UPDATED: _ClassVar[KeyChange]
    KEY_CHANGE_REVOKED: _ClassVar[KeyChange]
    KEY_CHANGE_EXPIRED: _ClassVar[KeyChange]
    KEY_CHANGE_ROTATED: _ClassVar[KeyChange]
    KEY_CHANGE_RESET: _ClassVar[KeyChange]
DECISION_UNSPECIFIED: Decision
DECISION_LOCKED_OUT: Decision
DECISION_MALFORMED: Decision
DECISION_NOT_FOUND: Decision
DECISION_REVOKED: Decision
DECISION_DISABLED: Decision
DECISION_EXPIRED: Decision
DECISION_ROTATED: Decision
DECISION_IP_NOT_ALLOWED: Decision
DECISION_INSUFFICIENT_SCOPE: Decision
DECISION_RATE_LIMITED: Decision
DECISION_VALID: Decision
KEY_CHANGE_UNSPECIFIED: KeyChange
KEY_CHANGE_CREATED: KeyChange
KEY_CHANGE_UPDATED: KeyChange
KEY_CHANGE_REVOKED: KeyChange
KEY_CHANGE_EXPIRED: KeyChange
KEY_CHANGE_ROTATED: KeyChange
KEY_CHANGE_RESET: KeyChange

class ValidateKeyRequest(_message.Message):
    __slots__ = ("key", "required_scope", "client_ip", "user_agent", "request_id", "cost", "dry_run", "min_revision", "want_facts")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    WANT_FACTS_FIELD_NUMBER: _ClassVar[int]
    key: str
    required_scope: str
    client_ip: str
    user_agent: str
    request_id: str
    cost: int
    dry_run: bool
    min_revision: int
    want_facts: bool
    def __init__(self, key: _Optional[str] = ..., required_scope: _Optional[str] = ..., client_ip: _Optional[str] = ..., user_agent: _Optional[str] = ..., request_id: _Optional[str] = ..., cost: _Optional[int] = ..., dry_run: bool = ..., min_revision: _Optional[int] = ..., want_facts: bool = ...) -> None: ...

class KeyFacts(_message.Message):
    __slots__ = ("epoch", "scopes", "ip_allowlist", "expire_time", "expired", "secret_slot", "previous_secret_expire_time", "revision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    IP_ALLOWLIST_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    SECRET_SLOT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SECRET_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    ip_allowlist: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    expired: bool
    secret_slot: _key_pb2.SecretSlot
    previous_secret_expire_time: _timestamp_pb2.Timestamp
    revision: int
    def __init__(self, epoch: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., ip_allowlist: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expired: bool = ..., secret_slot: _Optional[_Union[_key_pb2.SecretSlot, str]] = ..., previous_secret_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class RateLimitState(_message.Message):
    __slots__ = ("name", "bucket", "limit", "window", "remaining", "reset_time", "retry_after", "exceeded")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    RESET_TIME_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    bucket: str
    limit: int
    window: _duration_pb2.Duration
    remaining: int
    reset_time: _timestamp_pb2.Timestamp
    retry_after: _duration_pb2.Duration
    exceeded: bool
    def __init__(self, name: _Optional[str] = ..., bucket: _Optional[str] = ..., limit: _Optional[int] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., remaining: _Optional[int] = ..., reset_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., exceeded: bool = ...) -> None: ...

class ValidateKeyResponse(_message.Message):
    __slots__ = ("decision", "valid", "key_id", "key_type", "owner_id", "matched_scope", "expire_time", "secret_slot", "previous_secret_expire_time", "rate_limits", "unlimited", "retry_after", "reasons", "revision", "cache_age", "facts")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_TYPE_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    MATCHED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    SECRET_SLOT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SECRET_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CACHE_AGE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    valid: bool
    key_id: str
    key_type: _key_pb2.KeyType
    owner_id: str
    matched_scope: str
    expire_time: _timestamp_pb2.Timestamp
    secret_slot: _key_pb2.SecretSlot
    previous_secret_expire_time: _timestamp_pb2.Timestamp
    rate_limits: _containers.RepeatedCompositeFieldContainer[RateLimitState]
    unlimited: bool
    retry_after: _duration_pb2.Duration
    reasons: _containers.RepeatedScalarFieldContainer[Decision]
    revision: int
    cache_age: _duration_pb2.Duration
    facts: KeyFacts
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., valid: bool = ..., key_id: _Optional[str] = ..., key_type: _Optional[_Union[_key_pb2.KeyType, str]] = ..., owner_id: _Optional[str] = ..., matched_scope: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., secret_slot: _Optional[_Union[_key_pb2.SecretSlot, str]] = ..., previous_secret_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rate_limits: _Optional[_Iterable[_Union[RateLimitState, _Mapping]]] = ..., unlimited: bool = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Decision, str]]] = ..., revision: _Optional[int] = ..., cache_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., facts: _Optional[_Union[KeyFacts, _Mapping]] = ...) -> None: ...

class BatchValidateKeysRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ValidateKeyRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ValidateKeyRequest, _Mapping]]] = ...) -> None: ...

class BatchValidateKeysResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[ValidateKeyResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[ValidateKeyResponse, _Mapping]]] = ...) -> None: ...

class RevokeOwnKeyRequest(_message.Message):
    __slots__ = ("key", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: str
    reason: _key_pb2.RevokeReason
    def __init__(self, key: _Optional[str] = ..., reason: _Optional[_Union[_key_pb2.RevokeReason, str]] = ...) -> None: ...

class RevokeOwnKeyResponse(_message.Message):
    __slots__ = ("key_id", "revision")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    revision: int
    def __init__(self, key_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchKeysRequest(_message.Message):
    __slots__ = ("since_revision",)
    SINCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    since_revision: int
    def __init__(self, since_revision: _Optional[int] = ...) -> None: ...

class WatchKeysResponse(_message.Message):
    __slots__ = ("revision", "key_id", "change", "epoch")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    revision: int
    key_id: str
    change: KeyChange
    epoch: str
    def __init__(self, revision: _Optional[int] = ..., key_id: _Optional[str] = ..., change: _Optional[_Union[KeyChange, str]] = ..., epoch: _Optional[str] = ...) -> None: ...

class LocalUse(_message.Message):
    __slots__ = ("sequence", "key_id", "decision", "required_scope", "client_ip", "count", "first_time", "last_time")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_TIME_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    key_id: str
    decision: Decision
    required_scope: str
    client_ip: str
    count: int
    first_time: _timestamp_pb2.Timestamp
    last_time: _timestamp_pb2.Timestamp
    def __init__(self, sequence: _Optional[int] = ..., key_id: _Optional[str] = ..., decision: _Optional[_Union[Decision, str]] = ..., required_scope: _Optional[str] = ..., client_ip: _Optional[str] = ..., count: _Optional[int] = ..., first_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SyncKeysRequest(_message.Message):
    __slots__ = ("guard_id", "epoch", "revision", "last_grant_id", "uses", "closing")
    GUARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LAST_GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    guard_id: str
    epoch: str
    revision: int
    last_grant_id: str
    uses: _containers.RepeatedCompositeFieldContainer[LocalUse]
    closing: bool
    def __init__(self, guard_id: _Optional[str] = ..., epoch: _Optional[str] = ..., revision: _Optional[int] = ..., last_grant_id: _Optional[str] = ..., uses: _Optional[_Iterable[_Union[LocalUse, _Mapping]]] = ..., closing: bool = ...) -> None: ...

class SyncedChange(_message.Message):
    __slots__ = ("revision", "key_id")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    revision: int
    key_id: str
    def __init__(self, revision: _Optional[int] = ..., key_id: _Optional[str] = ...) -> None: ...

class SyncKeysResponse(_message.Message):
    __slots__ = ("epoch", "revision", "changes", "reset", "grant_id", "lease", "server_time", "poll_after", "locked_addresses", "locked_addresses_complete")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    POLL_AFTER_FIELD_NUMBER: _ClassVar[int]
    LOCKED_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LOCKED_ADDRESSES_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    revision: int
    changes: _containers.RepeatedCompositeFieldContainer[SyncedChange]
    reset: bool
    grant_id: str
    lease: _duration_pb2.Duration
    server_time: _timestamp_pb2.Timestamp
    poll_after: _duration_pb2.Duration
    locked_addresses: _containers.RepeatedScalarFieldContainer[str]
    locked_addresses_complete: bool
    def __init__(self, epoch: _Optional[str] = ..., revision: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[SyncedChange, _Mapping]]] = ..., reset: bool = ..., grant_id: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., server_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., poll_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., locked_addresses: _Optional[_Iterable[str]] = ..., locked_addresses_complete: bool = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("key_id", "name", "scopes", "expire_time")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    name: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., name: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
