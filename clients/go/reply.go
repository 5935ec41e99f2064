package apikeyd

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// reply is what a client is told, for HTTP and gRPC alike.
type reply struct {
	// status is 0 for a request that goes on.
	status int
	code   codes.Code
	// word is the error in the body, or the message of the gRPC status.
	word      string
	challenge string
	// retryAfter in whole seconds; 0: the client is not told to wait.
	retryAfter int64
	// policy and limits are RateLimit-Policy and RateLimit; "" for a key without limits.
	policy, limits string
}

var (
	noKey = reply{
		status: http.StatusUnauthorized, code: codes.Unauthenticated, word: "missing_token", challenge: "Bearer",
	}
	limitName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

func replyTo(verdict Verdict, scope string, now time.Time) reply {
	said := reply{}
	switch verdict.Decision {
	case Valid:
	case Malformed, NotFound, Revoked, Disabled, Expired, Rotated:
		said = reply{
			status: http.StatusUnauthorized, code: codes.Unauthenticated, word: "invalid_token",
			challenge: `Bearer error="invalid_token"`,
		}
	case IPNotAllowed, InsufficientScope:
		said = reply{
			status: http.StatusForbidden, code: codes.PermissionDenied, word: "insufficient_scope",
			challenge: `Bearer error="insufficient_scope"`,
		}
		if scope != "" {
			said.challenge += fmt.Sprintf(`, scope="%s"`, scope)
		}
	case RateLimited:
		said = reply{status: http.StatusTooManyRequests, code: codes.ResourceExhausted, word: "rate_limited"}
	case LockedOut:
		said = reply{status: http.StatusTooManyRequests, code: codes.ResourceExhausted, word: "too_many_failures"}
	default:
		return replyToNone(&NoDecision{})
	}
	if said.status == http.StatusTooManyRequests && verdict.Answer.RetryAfter != nil {
		said.retryAfter = max(1, wholeSeconds(verdict.RetryAfter))
	}
	said.policy, said.limits = limitsOf(verdict, now)
	return said
}

func replyToNone(err *NoDecision) reply {
	if err.Misconfigured {
		return reply{status: http.StatusInternalServerError, code: codes.Internal, word: "guard_misconfigured"}
	}
	return reply{
		status: http.StatusServiceUnavailable, code: codes.Unavailable, word: "unavailable",
		retryAfter: max(1, wholeSeconds(err.RetryAfter)),
	}
}

// limitsOf writes the limits as draft-ietf-httpapi-ratelimit-headers has them.
func limitsOf(verdict Verdict, now time.Time) (policy, state string) {
	var policies, states []string
	for _, limit := range verdict.Answer.GetRateLimits() {
		if !limitName.MatchString(limit.Name) {
			continue
		}
		window := wholeSeconds(limit.Window.AsDuration())
		reset := window
		if limit.ResetTime != nil {
			reset = wholeSeconds(limit.ResetTime.AsTime().Sub(now))
		}
		policies = append(policies, fmt.Sprintf(`"%s";q=%d;w=%d`, limit.Name, limit.Limit, window))
		states = append(states, fmt.Sprintf(`"%s";r=%d;t=%d`, limit.Name, limit.Remaining, reset))
	}
	return strings.Join(policies, ", "), strings.Join(states, ", ")
}

// wholeSeconds rounds up, and never below 0.
func wholeSeconds(duration time.Duration) int64 {
	return max(0, int64(math.Ceil(duration.Seconds())))
}
