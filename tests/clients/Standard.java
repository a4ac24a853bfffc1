// The JDK's own client, as it comes: it offers HTTP/2 by an Upgrade on its first request. Prints one status a line.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

public final class Standard {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int n = 0; n < 5; n++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/api/v1/products"))
                .timeout(Duration.ofSeconds(5))
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString("{\"name\":\"Lamp\",\"price\":1}"))
                .build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        }
    }
}
