package apikeyd

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

// Secret is a key. Formatted or logged it is "[key]".
type Secret string

func (Secret) Format(out fmt.State, _ rune) { _, _ = out.Write([]byte("[key]")) }
func (Secret) LogValue() slog.Value         { return slog.StringValue("[key]") }
func (Secret) MarshalText() ([]byte, error) { return []byte("[key]"), nil }

// Question is about one key.
type Question struct {
	// Key as the client sent it: not trimmed.
	Key Secret
	// Scope that the request needs, without `*`; "" means that any good key will do.
	Scope string
	// ClientIP is the end client's address: lockout, allow-lists and anomalies need it. "" means unknown.
	ClientIP string
	// UserAgent of the end client, for the audit. Cut at 512 characters.
	UserAgent string
	// RequestID for the audit and for errors, at most 1 024 characters.
	RequestID string
	// Cost is taken from each limit of the key; 0 means 1, at most 1 000 000 000.
	Cost uint64
	// DryRun decides and takes nothing.
	DryRun bool
}

func (q Question) request() *apikeyv1.ValidateKeyRequest {
	// gRPC sends no text that is not UTF-8; U+FFFD is in no key.
	agent := []rune(utf8Of(q.UserAgent))
	request := &apikeyv1.ValidateKeyRequest{
		Key: utf8Of(string(q.Key)), ClientIp: utf8Of(q.ClientIP), UserAgent: string(agent[:min(len(agent), 512)]),
		RequestId: utf8Of(q.RequestID), Cost: q.Cost, DryRun: q.DryRun,
	}
	if scope := utf8Of(q.Scope); scope != "" {
		request.RequiredScope = &scope
	}
	return request
}

func utf8Of(text string) string { return strings.ToValidUTF8(text, "\ufffd") }

// Decision is apikeyd's word for the outcome.
type Decision string

// The decisions, in the order in which they are looked for.
const (
	LockedOut         Decision = "LOCKED_OUT"
	Malformed         Decision = "MALFORMED"
	NotFound          Decision = "NOT_FOUND"
	Revoked           Decision = "REVOKED"
	Disabled          Decision = "DISABLED"
	Expired           Decision = "EXPIRED"
	Rotated           Decision = "ROTATED"
	IPNotAllowed      Decision = "IP_NOT_ALLOWED"
	InsufficientScope Decision = "INSUFFICIENT_SCOPE"
	RateLimited       Decision = "RATE_LIMITED"
	Valid             Decision = "VALID"
)

// Verdict is apikeyd's decision about a key. The zero Verdict is not good.
type Verdict struct {
	Decision Decision
	// KeyID, KeyType ("SERVICE", …) and OwnerID are for your logs; "" where no key was found.
	KeyID, KeyType, OwnerID string
	// MatchedScope is the grant that covers the scope asked for.
	MatchedScope string
	// RetryAfter is how long to wait after RateLimited and LockedOut; 0 where waiting does not help.
	RetryAfter time.Duration
	// Answer has everything else, such as the limits and the end of a rotation.
	Answer *apikeyv1.ValidateKeyResponse
}

// OK says that the key is good.
func (v Verdict) OK() bool { return v.Decision == Valid }

// verdictOf believes an answer only when it does not contradict itself.
func verdictOf(answer *apikeyv1.ValidateKeyResponse) (Verdict, *NoDecision) {
	decision := answer.GetDecision()
	_, known := apikeyv1.Decision_name[int32(decision)]
	isValid := decision == apikeyv1.Decision_DECISION_VALID
	if !known || decision == apikeyv1.Decision_DECISION_UNSPECIFIED || isValid != answer.GetValid() {
		return Verdict{}, &NoDecision{Code: codes.DataLoss}
	}
	return Verdict{
		Decision: Decision(strings.TrimPrefix(decision.String(), "DECISION_")),
		KeyID:    answer.KeyId, KeyType: strings.TrimPrefix(answer.KeyType.String(), "KEY_TYPE_"),
		OwnerID: answer.OwnerId, MatchedScope: answer.MatchedScope, RetryAfter: max(0, answer.RetryAfter.AsDuration()),
		Answer: answer,
	}, nil
}

// NoDecision says why there is none. It holds no text of the server's: that could repeat a key.
type NoDecision struct {
	// Misconfigured: the guard asks in a way that can never be answered, or its own key does not work.
	Misconfigured bool
	// Code of the call; DATA_LOSS for an answer that makes no sense.
	Code codes.Code
	// Reason is apikeyd's ErrorInfo.reason, such as STORE_UNAVAILABLE; "" when it came from somebody else.
	Reason string
	// RetryAfter is what the server asks for; 0 when it says nothing.
	RetryAfter time.Duration
	cause      error
}

func (e *NoDecision) Error() string {
	return strings.TrimSpace("apikeyd: no decision: " + e.Code.String() + " " + e.Reason)
}

// Unwrap gives context.Canceled or context.DeadlineExceeded when that is why.
func (e *NoDecision) Unwrap() error { return e.cause }

func (e *NoDecision) outcome() string {
	if e.Misconfigured {
		return "MISCONFIGURED"
	}
	return "UNAVAILABLE"
}

var reasonShape = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// detailsOf finds apikeyd's reason, "" for an error of somebody else's, and for how long not to call again.
func detailsOf(err error) (reason string, wait time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "apikey.v1" && reasonShape.MatchString(detail.Reason) {
				reason = detail.Reason
			}
		case *errdetails.RetryInfo:
			wait = max(0, detail.RetryDelay.AsDuration())
		}
	}
	return reason, wait
}

func noDecisionOf(err error) *NoDecision {
	code := status.Code(err)
	reason, wait := detailsOf(err)
	asksWrongly := code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.InvalidArgument
	return &NoDecision{Misconfigured: asksWrongly && reason != "", Code: code, Reason: reason, RetryAfter: wait}
}
