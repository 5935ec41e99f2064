package apikeyd

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
)

type verdictKey struct{}

// FromContext returns the verdict on a request that a guard has admitted; false for an unguarded request.
func FromContext(ctx context.Context) (Verdict, bool) {
	verdict, ok := ctx.Value(verdictKey{}).(Verdict)
	return verdict, ok
}

// HTTP returns a middleware that admits requests whose key satisfies the rule. It panics when the rule is invalid.
func (g *Guard) HTTP(rule Rule) func(http.Handler) http.Handler {
	rule = rule.mustHold()
	return func(next http.Handler) http.Handler {
		if rule.Open {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			verdict, said := g.admit(r.Context(), rule, r.Header.Values, r.RemoteAddr)
			if said.limits != "" {
				w.Header().Set("RateLimit-Policy", said.policy)
				w.Header().Set("RateLimit", said.limits)
			}
			if said.status == 0 {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), verdictKey{}, verdict)))
				return
			}
			said.write(w)
		})
	}
}

func (r reply) write(w http.ResponseWriter) {
	if r.challenge != "" {
		w.Header().Set("WWW-Authenticate", r.challenge)
	}
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(r.retryAfter, 10))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(r.status)
	fmt.Fprintf(w, `{"error":"%s"}`, r.word)
}
