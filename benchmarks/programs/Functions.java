import java.math.BigInteger;
import java.util.HashMap;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.IntStream;

/** Calls much of the library often enough for HotSpot's compilers, and prints a sum. Functions ROUNDS */
public class Functions {
    public static void main(String[] arguments) {
        int rounds = Integer.parseInt(arguments[0]);
        Pattern pattern = Pattern.compile("([a-z]+)-(\\d+)");
        Map<String, Integer> counts = new HashMap<>();
        long sum = 0;
        for (int number = 1; number <= rounds; number++) {
            String text = "number-" + number;
            var matcher = pattern.matcher(text);
            if (matcher.matches()) {
                counts.merge(matcher.group(1), Integer.parseInt(matcher.group(2)), Integer::sum);
            }
            BigInteger big = BigInteger.valueOf(number).pow(7).mod(BigInteger.valueOf(65521));
            sum += big.intValue();
            sum += IntStream.range(0, 20).map(value -> value * 31 % 7).filter(value -> value > 2).sum();
            sum = (sum * 31 + text.hashCode() + String.format("%x", number).length()) % 65521;
        }
        System.out.println(sum + " " + counts);
    }
}
