import java.math.BigDecimal;
import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.ConfigurationsApi;
import org.openapitools.client.api.OrdersApi;
import org.openapitools.client.api.PipelineApi;
import org.openapitools.client.api.ProductsApi;
import org.openapitools.client.api.UsersApi;
import org.openapitools.client.model.*;

/** Ten calls of a client that openapi-generator made from the document. A call that is not answered with 2xx throws. */
public final class Calls {
    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        ProductsApi products = new ProductsApi(client);
        String id = "java-" + System.nanoTime();
        Product created =
                products.createProduct(
                        new ProductCreate()
                                .id(id)
                                .name("Lamp")
                                .price(new SendEventsRequestPrice(new BigDecimal("49.99")))
                                .category("light"),
                        null);
        expect(created.getPrice().compareTo(new BigDecimal("49.99")) == 0 && created.getVersion() == 1, created);
        products.getProduct(id, null, null, null, null);
        ProductPage page = products.listProducts(1000, null, null, null);
        expect(page.getItems().stream().anyMatch(item -> item.getId().equals(id)), page);
        Product changed = products.patchProduct(id, new ProductPatch().name("Lamp, large"), "\"1\"", null);
        expect(changed.getVersion() == 2, changed);
        products.searchProducts(null, null, null, "large", null, null);
        new UsersApi(client).createUser(new UserCreate().id(id).email(id + "@example.com").name("Ann"), null);
        OrderCreateItemsInner item = new OrderCreateItemsInner().productId(id).quantity(1);
        Order order = new OrdersApi(client).createOrder(new OrderCreate().userId(id).items(List.of(item)), null);
        new PipelineApi(client).orderTimeline(order.getId());
        ConfigurationsApi configurations = new ConfigurationsApi(client);
        BatchConfigurationsRequestOperationsInner operation =
                new BatchConfigurationsRequestOperationsInner()
                        .op(BatchConfigurationsRequestOperationsInner.OpEnum.CREATE)
                        .id(id)
                        .data(Map.of("value", Map.of("on", true)));
        var batch =
                configurations.batchConfigurations(
                        new BatchConfigurationsRequest().operations(List.of(operation)), null);
        expect(batch.getResults().get(0).getStatus() == 201, batch);
        configurations.getConfiguration(id, null, null, null, null);
        System.out.println("10 calls");
    }

    private static void expect(boolean holds, Object told) {
        if (!holds) {
            throw new AssertionError(told);
        }
    }
}
