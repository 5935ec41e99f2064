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

// Secret is a key. It is formatted and logged as "[key]".
type Secret string

func (Secret) Format(out fmt.State, _ rune) { _, _ = out.Write([]byte("[key]")) }
func (Secret) LogValue() slog.Value         { return slog.StringValue("[key]") }
func (Secret) MarshalText() ([]byte, error) { return []byte("[key]"), nil }

// Question asks about one key.
type Question struct {
	// Key as the client sent it: not trimmed.
	Key Secret
	// Scope that the request needs, without `*`; "" accepts any valid key.
	Scope string
	// ClientIP is the end client's address: lockout, allow-lists and anomalies need it. "" means unknown.
	ClientIP string
	// UserAgent of the end client, for the audit. Cut at 512 characters.
	UserAgent string
	// RequestID for the audit and for errors, at most 1 024 characters.
	RequestID string
	// Cost is consumed from each limit of the key; 0 means 1, at most 1 000 000 000.
	Cost uint64
	// DryRun decides without consuming any limit.
	DryRun bool
}

func (q Question) request() *apikeyv1.ValidateKeyRequest {
	// gRPC sends only UTF-8. No key contains U+FFFD.
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

// Decision is the name of the outcome in apikeyd.
type Decision string

// The decisions, in the order in which they are checked.
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

// Verdict is apikeyd's decision about a key. The zero Verdict is a denial.
type Verdict struct {
	Decision Decision
	// KeyID, KeyType ("SERVICE", …) and OwnerID are for your logs; "" when no key was found.
	KeyID, KeyType, OwnerID string
	// MatchedScope is the grant that covers the required scope.
	MatchedScope string
	// RetryAfter is how long to wait after RateLimited and LockedOut; 0 when waiting does not help.
	RetryAfter time.Duration
	// Local: the guard decided by itself, under a lease.
	Local bool
	// Answer is the whole response, with the limits and the end of a rotation.
	Answer *apikeyv1.ValidateKeyResponse
}

// OK reports whether the key is valid.
func (v Verdict) OK() bool { return v.Decision == Valid }

// verdictOf accepts a response only when its fields are consistent.
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

// NoDecision is the reason why there is no decision. It contains no text of the server, which could repeat a key.
type NoDecision struct {
	// Misconfigured: no question of the guard can succeed, or its own key does not work.
	Misconfigured bool
	// Code of the call; DATA_LOSS for an inconsistent response.
	Code codes.Code
	// Reason is apikeyd's ErrorInfo.reason, such as STORE_UNAVAILABLE; "" when the error is not from apikeyd.
	Reason string
	// RetryAfter is the wait that the server asks for; 0 for none.
	RetryAfter time.Duration
	cause      error
}

func (e *NoDecision) Error() string {
	return strings.TrimSpace("apikeyd: no decision: " + e.Code.String() + " " + e.Reason)
}

// Unwrap returns context.Canceled or context.DeadlineExceeded when that is the reason.
func (e *NoDecision) Unwrap() error { return e.cause }

func (e *NoDecision) outcome() string {
	if e.Misconfigured {
		return "MISCONFIGURED"
	}
	return "UNAVAILABLE"
}

var reasonShape = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// detailsOf returns apikeyd's reason, "" for an error that is not from apikeyd, and how long to wait before a retry.
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
