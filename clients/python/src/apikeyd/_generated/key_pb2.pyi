import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_TYPE_UNSPECIFIED: _ClassVar[KeyType]
    KEY_TYPE_SYSTEM: _ClassVar[KeyType]
    KEY_TYPE_USER: _ClassVar[KeyType]
    KEY_TYPE_SERVICE: _ClassVar[KeyType]
    KEY_TYPE_INTEGRATION: _ClassVar[KeyType]
    KEY_TYPE_EMERGENCY: _ClassVar[KeyType]

class KeyStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_STATUS_UNSPECIFIED: _ClassVar[KeyStatus]
    KEY_STATUS_ACTIVE: _ClassVar[KeyStatus]
    KEY_STATUS_DISABLED: _ClassVar[KeyStatus]
    KEY_STATUS_EXPIRED: _ClassVar[KeyStatus]
    KEY_STATUS_REVOKED: _ClassVar[KeyStatus]

class SecretSlot(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SECRET_SLOT_UNSPECIFIED: _ClassVar[SecretSlot]
    SECRET_SLOT_CURRENT: _ClassVar[SecretSlot]
    SECRET_SLOT_PREVIOUS: _ClassVar[SecretSlot]

class RevokeReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOKE_REASON_UNSPECIFIED: _ClassVar[RevokeReason]
    REVOKE_REASON_KEY_COMPROMISE: _ClassVar[RevokeReason]
    REVOKE_REASON_SUPERSEDED: _ClassVar[RevokeReason]
    REVOKE_REASON_AFFILIATION_CHANGED: _ClassVar[RevokeReason]
    REVOKE_REASON_CESSATION_OF_OPERATION: _ClassVar[RevokeReason]
    REVOKE_REASON_PRIVILEGE_WITHDRAWN: _ClassVar[RevokeReason]

class RotationMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROTATION_MODE_UNSPECIFIED: _ClassVar[RotationMode]
    ROTATION_MODE_MANUAL: _ClassVar[RotationMode]
    ROTATION_MODE_FORCED: _ClassVar[RotationMode]

class RotationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROTATION_STATE_UNSPECIFIED: _ClassVar[RotationState]
    ROTATION_STATE_NONE: _ClassVar[RotationState]
    ROTATION_STATE_ACTIVE: _ClassVar[RotationState]
    ROTATION_STATE_EXPIRED: _ClassVar[RotationState]
KEY_TYPE_UNSPECIFIED: KeyType
KEY_TYPE_SYSTEM: KeyType
KEY_TYPE_USER: KeyType
KEY_TYPE_SERVICE: KeyType
KEY_TYPE_INTEGRATION: KeyType
KEY_TYPE_EMERGENCY: KeyType
KEY_STATUS_UNSPECIFIED: KeyStatus
KEY_STATUS_ACTIVE: KeyStatus
KEY_STATUS_DISABLED: KeyStatus
KEY_STATUS_EXPIRED: KeyStatus
KEY_STATUS_REVOKED: KeyStatus
SECRET_SLOT_UNSPECIFIED: SecretSlot
SECRET_SLOT_CURRENT: SecretSlot
SECRET_SLOT_PREVIOUS: SecretSlot
REVOKE_REASON_UNSPECIFIED: RevokeReason
REVOKE_REASON_KEY_COMPROMISE: RevokeReason
REVOKE_REASON_SUPERSEDED: RevokeReason
REVOKE_REASON_AFFILIATION_CHANGED: RevokeReason
REVOKE_REASON_CESSATION_OF_OPERATION: RevokeReason
REVOKE_REASON_PRIVILEGE_WITHDRAWN: RevokeReason
ROTATION_MODE_UNSPECIFIED: RotationMode
ROTATION_MODE_MANUAL: RotationMode
ROTATION_MODE_FORCED: RotationMode
ROTATION_STATE_UNSPECIFIED: RotationState
ROTATION_STATE_NONE: RotationState
ROTATION_STATE_ACTIVE: RotationState
ROTATION_STATE_EXPIRED: RotationState

class KeyRotation(_message.Message):
    __slots__ = ("state", "mode", "start_time", "expire_time", "old_uses")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    OLD_USES_FIELD_NUMBER: _ClassVar[int]
    state: RotationState
    mode: RotationMode
    start_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    old_uses: int
    def __init__(self, state: _Optional[_Union[RotationState, str]] = ..., mode: _Optional[_Union[RotationMode, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., old_uses: _Optional[int] = ...) -> None: ...

class RateLimit(_message.Message):
    __slots__ = ("name", "limit", "window")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    window: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("id", "name", "owner_id", "key_type", "status", "scopes", "rate_limits", "rate_limit_bucket", "ip_allowlist", "metadata", "disabled", "create_time", "expire_time", "revoke_time", "revoke_reason", "revoke_note", "last_use_time", "hint", "etag", "revision", "rotate_every", "rotation_due_time", "rotation", "local_validation")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMIT_BUCKET_FIELD_NUMBER: _ClassVar[int]
    IP_ALLOWLIST_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_REASON_FIELD_NUMBER: _ClassVar[int]
    REVOKE_NOTE_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROTATE_EVERY_FIELD_NUMBER: _ClassVar[int]
    ROTATION_DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    ROTATION_FIELD_NUMBER: _ClassVar[int]
    LOCAL_VALIDATION_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    owner_id: str
    key_type: KeyType
    status: KeyStatus
    scopes: _containers.RepeatedScalarFieldContainer[str]
    rate_limits: _containers.RepeatedCompositeFieldContainer[RateLimit]
    rate_limit_bucket: str
    ip_allowlist: _containers.RepeatedScalarFieldContainer[str]
    metadata: _containers.ScalarMap[str, str]
    disabled: bool
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    revoke_time: _timestamp_pb2.Timestamp
    revoke_reason: RevokeReason
    revoke_note: str
    last_use_time: _timestamp_pb2.Timestamp
    hint: str
    etag: str
    revision: int
    rotate_every: _duration_pb2.Duration
    rotation_due_time: _timestamp_pb2.Timestamp
    rotation: KeyRotation
    local_validation: bool
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., owner_id: _Optional[str] = ..., key_type: _Optional[_Union[KeyType, str]] = ..., status: _Optional[_Union[KeyStatus, str]] = ..., scopes: _Optional[_Iterable[str]] = ..., rate_limits: _Optional[_Iterable[_Union[RateLimit, _Mapping]]] = ..., rate_limit_bucket: _Optional[str] = ..., ip_allowlist: _Optional[_Iterable[str]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., disabled: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_reason: _Optional[_Union[RevokeReason, str]] = ..., revoke_note: _Optional[str] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hint: _Optional[str] = ..., etag: _Optional[str] = ..., revision: _Optional[int] = ..., rotate_every: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rotation_due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rotation: _Optional[_Union[KeyRotation, _Mapping]] = ..., local_validation: bool = ...) -> None: ...
