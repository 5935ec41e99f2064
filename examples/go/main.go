// A backend that admits requests whose key is valid for the scope traces:read.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	apikeyd "example.com/apikeyd/clients/go"
)

func main() {
	guard, err := apikeyd.New(apikeyd.Options{
		Address: setting("APIKEYD_ADDRESS", "127.0.0.1:50051"),
		KeyFile: os.Getenv("APIKEYD_KEY_FILE"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer guard.Close()
	http.Handle("GET /traces", guard.HTTP(apikeyd.Rule{Scope: "traces:read"})(http.HandlerFunc(traces)))
	listener, err := net.Listen("tcp", "127.0.0.1:"+setting("PORT", "8000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.Serve(listener))
}

func traces(w http.ResponseWriter, r *http.Request) {
	verdict, _ := apikeyd.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"traces": [], "key": %q}`, verdict.KeyID)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
