package apikeyd

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// reply is the response to a client, for HTTP and gRPC alike.
type reply struct {
	// status is 0 for an admitted request.
	status int
	code   codes.Code
	// word is the error in the body, or the message of the gRPC status.
	word      string
	challenge string
	// retryAfter is in whole seconds; 0: no retry-after is sent.
	retryAfter int64
	// policy and limits are RateLimit-Policy and RateLimit; "" for a key without limits.
	policy, limits string
}

var (
	noKey     = reply{401, codes.Unauthenticated, "missing_token", "Bearer", 0, "", ""}
	invalid   = reply{401, codes.Unauthenticated, "invalid_token", `Bearer error="invalid_token"`, 0, "", ""}
	forbidden = reply{403, codes.PermissionDenied, "insufficient_scope", `Bearer error="insufficient_scope"`, 0, "", ""}
	// replies has the response for each decision.
	replies = map[Decision]reply{
		Malformed: invalid, NotFound: invalid, Revoked: invalid, Disabled: invalid, Expired: invalid, Rotated: invalid,
		IPNotAllowed: forbidden, InsufficientScope: forbidden,
		RateLimited: {status: 429, code: codes.ResourceExhausted, word: "rate_limited"},
		LockedOut:   {status: 429, code: codes.ResourceExhausted, word: "too_many_failures"},
	}
	limitName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

func replyTo(verdict Verdict, scope string, now time.Time) reply {
	said, denied := replies[verdict.Decision]
	switch {
	case !denied && !verdict.OK():
		return replyToNone(&NoDecision{})
	case said.status == 403 && scope != "":
		said.challenge += fmt.Sprintf(`, scope="%s"`, scope)
	case said.status == 429 && verdict.Answer.RetryAfter != nil:
		said.retryAfter = max(1, wholeSeconds(verdict.RetryAfter))
	}
	said.policy, said.limits = limitsOf(verdict, now)
	return said
}

func replyToNone(err *NoDecision) reply {
	if err.Misconfigured {
		return reply{status: 500, code: codes.Internal, word: "guard_misconfigured"}
	}
	wait := max(1, wholeSeconds(err.RetryAfter))
	return reply{status: 503, code: codes.Unavailable, word: "unavailable", retryAfter: wait}
}

// limitsOf formats the limits as in draft-ietf-httpapi-ratelimit-headers.
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

// wholeSeconds rounds up; negative values become 0.
func wholeSeconds(duration time.Duration) int64 {
	return max(0, int64(math.Ceil(duration.Seconds())))
}
